//! Tests the mirror against a model of an object store: in memory, with faults at every request, in virtual time.

mod conditions;
mod damage;
mod faults;
mod kills;
mod late_listings;
mod model;
mod observing;
mod pieces;
mod redaction;
mod support;
mod surveys;
mod two_writers;
