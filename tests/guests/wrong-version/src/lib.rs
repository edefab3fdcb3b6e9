//! A component of a later version of the contract, whose records nobody here knows.

use exports::reef::plugin::reconciler::{Guest, Request};

wit_bindgen::generate!({
    inline: "
        package reef:plugin@0.2.0;
        interface reads { get: func(name: string) -> option<string>; }
        interface reconciler {
            record request { object: string, hints: list<string> }
            reconcile: func(request: request) -> result<string, string>;
        }
        world plugin { import reads; export reconciler; }
    ",
});

struct Component;

impl Guest for Component {
    fn reconcile(request: Request) -> Result<String, String> {
        reef::plugin::reads::get(&request.object).ok_or_else(|| request.hints.join(", "))
    }
}

export!(Component);
