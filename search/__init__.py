"""The words the product speaks, the stores that hold vectors, and the service that answers."""
