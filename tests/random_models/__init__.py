"""Random small models as data: drawn from seeds, built, carried through every stage, and shrunk where one goes wrong."""
