//! Whole ways of jobs: the real worker, a real Redis, real containers.
