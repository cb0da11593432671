//! The bytes themselves.
