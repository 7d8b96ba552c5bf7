//! The laboratory: namespaces, servers, fixtures.
