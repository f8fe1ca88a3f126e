"""Does a sweep survive anything? `make chaos N=100 SEED=1 DB=sqlite` runs one under faults; docs/chaos.md says more."""
