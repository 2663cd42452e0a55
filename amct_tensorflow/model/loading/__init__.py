"""From a path to a frozen graph, whatever form the model has."""
