//! File -> [`Config`]; an invalid configuration cannot be represented afterwards.
