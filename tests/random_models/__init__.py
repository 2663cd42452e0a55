"""Random small models as data: drawn from seeds, built, carried through every stage, shrunk where one goes wrong."""
