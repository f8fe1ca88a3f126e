"""Where do shards run? Ray actors or threads of this process, behind one small protocol."""
