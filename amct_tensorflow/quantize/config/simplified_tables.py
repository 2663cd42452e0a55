"""Which tables a simplified configuration has in int8: ``weight_compress_only`` of the message that applies to each.

    common_config: { weight_compress_only: true }
    override_layer_types: { layer_type: "GatherV2" calibration_config: { weight_compress_only: false } }
    override_layer_configs: { layer_name: "embedding/Gather" calibration_config: { weight_compress_only: true } }

The most specific one counts, as for layers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from amct_tensorflow.errors import ConfigValueError
from amct_tensorflow.graph.names import LayerName
from amct_tensorflow.log import log_for
from amct_tensorflow.model.tables import Table, table_names
from amct_tensorflow.quantize.config.defaults import default_tables
from amct_tensorflow.quantize.config.schema import COMPRESS_ONLY
from amct_tensorflow.quantize.config.validate import check_can_be_compressed


@dataclass(frozen=True)
class TableChoices:
    """What a simplified configuration says of tables.

    Attributes:
        source: name of its file, for messages.
        tables: constants of the graph that are looked up.
        common: its common_config.
        by_name: per name of a table, the message of its override.
        by_type: per op type that looks tables up, the message of its override.
    """

    source: str
    tables: Sequence[Table]
    common: Any
    by_name: Mapping[str, Any]
    by_type: Mapping[str, Any]

    def resolve(self) -> dict[LayerName, bool]:
        """Returns per table that can be stored in int8, whether it is.

        Raises:
            ConfigValueError: an override of a table says something that only a layer has, two name the same table, or
                one asks for a table that cannot be stored so.
        """
        for name, message in (*self.by_name.items(), *self.by_type.items()):
            _check_override(message, f"{self.source}, override of {name!r}")
        chosen = default_tables(self.tables)
        for table in self.tables:
            if table.name in chosen:
                chosen[table.name] = bool(self.by_type.get(table.op_type, self.common).weight_compress_only)
        known = table_names(self.tables)
        said: dict[LayerName, str] = {}
        for name, message in self.by_name.items():
            table, where = known[name], f"{self.source}, override of {name!r}"
            if table.name in said:
                raise ConfigValueError(f"{where}: {said[table.name]!r} looks up the same table. Delete one of them.")
            said[table.name] = name
            if message.weight_compress_only:
                check_can_be_compressed(table, name, where)
            if table.name in chosen:
                chosen[table.name] = bool(message.weight_compress_only)
        self._tell(chosen)
        return chosen

    def _tell(self, chosen: Mapping[LayerName, bool]) -> None:
        if self.common.weight_compress_only:
            log_for("config").warning(
                "%s: weight_compress_only of common_config is for tables, of which %d are stored in int8. Weights and "
                "activations of layers are quantized together all the same.",
                self.source, sum(chosen.values()),
            )  # fmt: skip


def _check_override(message: Any, where: str) -> None:
    for field, _ in message.ListFields():
        if field.name != COMPRESS_ONLY:
            raise ConfigValueError(
                f"{where}: {field.name} is for layers, and this is a table, which has {COMPRESS_ONLY} alone. Delete it."
            )
