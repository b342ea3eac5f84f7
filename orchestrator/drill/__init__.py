"""Does anything get lost? A small sweep under `kill -9`, compared with an undisturbed one."""
