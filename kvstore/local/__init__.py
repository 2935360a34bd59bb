"""Several nodes as processes on one machine: for trying out, demos, tests and benchmarks."""
