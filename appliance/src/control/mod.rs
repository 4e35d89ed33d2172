//! The control thread: key refresh, tickets, sessions, reload, shard mailboxes.
