"""Speed and memory of Tidemill on this machine: `python -m benchmarks`, or `make bench`. Nothing here is a test."""
