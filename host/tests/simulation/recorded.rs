//! The model answers as a real API server did: see `tests/simulation/`.
