from tests.launch.ready import arguments

__all__ = ["arguments"]
