//! Only a place for the benchmark: see `load/main.rs`.
