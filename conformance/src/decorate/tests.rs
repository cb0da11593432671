//! Each way to misbehave, on a store of every contract that notes what reached it.

mod blocking;
mod ledger;
mod waiting;

use larder_traits::{Classify, ErrorKind, ObjectContext, ObjectId, Outcome};

use super::{Faulty, Report, StreamEnd, Switch};
use crate::fixture::{FaultKind, Faults};
use ledger::Ledger;

fn object(key: &str) -> ObjectId {
    ObjectId::new(ObjectContext::new("test", Vec::new()), key)
}

/// What an error tells.
fn told<T, E: Classify>(result: Result<T, E>) -> (ErrorKind, Outcome) {
    match result {
        Ok(_) => panic!("this call was made to fail"),
        Err(error) => (error.kind(), error.outcome()),
    }
}
