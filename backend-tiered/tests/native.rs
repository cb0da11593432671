//! What the protocols cost, where things lie, and when they end.

mod common;

use common::checks::{self, Checked};
use common::shipped;

fn held<T>(checked: Checked<T>) -> T {
    checked.unwrap_or_else(|why| panic!("{why}"))
}

#[test]
fn a_size_decides_where_an_object_lies() {
    held(checks::ladder(&shipped));
}

#[test]
fn a_small_put_and_a_small_get_cost_one_call_and_a_large_get_two() {
    held(checks::costs(&shipped));
}

#[test]
fn a_stream_that_breaks_leaves_the_old_object() {
    held(checks::failing_client(&shipped));
}

#[test]
fn redirect_and_payload_have_one_deadline() {
    held(checks::one_deadline(&shipped));
}
