//! A component of another world: a valid one, only no plugin.

wit_bindgen::generate!({
    inline: "
        package example:greeter@1.0.0;
        world greeter { export greet: func(name: string) -> string; }
    ",
});

struct Component;

impl Guest for Component {
    fn greet(name: String) -> String {
        format!("Hello, {name}")
    }
}

export!(Component);
