//! The ops listener and the admin API, on the control thread.
