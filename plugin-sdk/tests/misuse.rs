//! Misuse of `plugin!` is a compile error that says what to write instead.
//!
//! Each file of `misuse/` has one mistake, and beside it what the compiler says.

#[test]
fn each_mistake_is_a_compile_error_that_names_the_fix() {
    trybuild::TestCases::new().compile_fail("tests/misuse/*.rs");
}
