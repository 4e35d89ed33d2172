//! The bundled load generator
