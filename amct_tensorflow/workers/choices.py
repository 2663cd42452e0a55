"""Which workers there are: processes on this machine, or those of a Ray cluster."""

from collections.abc import Mapping

from amct_tensorflow.workers.crew import Crew
from amct_tensorflow.workers.greeting import our_greeting
from amct_tensorflow.workers.parcel import refuse_while_unpacking
from amct_tensorflow.workers.pool import Pool
from amct_tensorflow.workers.process_pool import ProcessPool
from amct_tensorflow.workers.ray_pool import RayPool


def start_crew(
    evaluator: bytes, identity: Mapping[str, str], num_workers: int, ray: str | None, *, exact: bool
) -> Crew:
    """Returns workers, which start when the ``with`` block is entered, and end with it.

    Args:
        evaluator: what they evaluate with, pickled.
        identity: what its ``identity`` tells here, as JSON by name.
        num_workers: how many; of a Ray cluster 0 for as many as it has CPUs.
        ray: address of the cluster; None for this machine.
        exact: whether no candidate runs in integers.

    Raises:
        WorkerError: there is no such cluster, or not so much room in it; or this is a worker already.
    """
    refuse_while_unpacking()
    pool: Pool = ProcessPool(num_workers, evaluator) if ray is None else RayPool(num_workers, evaluator, ray)
    return Crew(pool, our_greeting(identity, exact=exact))
