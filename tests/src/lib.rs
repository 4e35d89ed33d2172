//! Integration tests: real servers, real clients, the simulator
