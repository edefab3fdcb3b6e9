//! Guests as WebAssembly text, one behaviour each.
//!
//! The text works on the canonical ABI by hand: `reconcile` gets the address of its request and returns the address of its
//! answer. The offsets stand beside each guest that uses them.

use reef::names::Memory;

/// The address of the answer.
const ANSWER: u32 = 1024;
/// Where the texts of a guest stand.
const TEXT: u32 = 4096;

pub struct Guest {
    /// Further items of the module, imports first.
    items: String,
    /// What `reconcile` does. `$request` is the address of the request.
    body: String,
    pages: u32,
    memory: Memory,
}

impl Guest {
    fn new(items: impl Into<String>, body: impl Into<String>) -> Self {
        Self { items: items.into(), body: body.into(), pages: 16, memory: Memory(4 << 20) }
    }

    /// The limit of memory that suits it.
    pub fn memory(&self) -> Memory {
        self.memory
    }

    pub fn build(&self) -> Vec<u8> {
        wat::parse_str(self.text()).unwrap()
    }

    /// The same as another toolchain would leave it: without a manifest.
    pub fn bare(&self) -> Vec<u8> {
        let text: String = self.text().lines().filter(|line| !line.contains("@custom")).map(|line| format!("{line}\n")).collect();
        wat::parse_str(text).unwrap()
    }

    fn text(&self) -> String {
        include_str!("plugin.wat")
            .replace("@@pages", &self.pages.to_string())
            .replace("@@items", &self.items)
            .replace("@@body", &self.body)
    }

    /// A plan whose status is the object (at 32 in the request), to run again after `now` (at 48), partial.
    ///
    /// A plan at 8: writes 8, 12; status 16, 20, 24; conditions 28, 32; events 36, 40; after 48, 56; partial 64; done 65.
    pub fn echo() -> Self {
        Self::new("", echo("(i32.load offset=32 (local.get $request))", "(i32.load offset=36 (local.get $request))"))
    }

    /// A failure of this kind. At 8: kind 8, 12; reason 16, 20; message 24, 28.
    pub fn failure(kind: &str) -> Self {
        let length = kind.len();
        Self::new(
            data(TEXT, kind),
            format!(
                "(i32.store8 (i32.const {ANSWER}) (i32.const 1))
                (i32.store offset=8 (i32.const {ANSWER}) (i32.const {TEXT}))
                (i32.store offset=12 (i32.const {ANSWER}) (i32.const {length}))
                (i32.const {ANSWER})"
            ),
        )
    }

    pub fn endless_loop() -> Self {
        Self::new("", "(loop $l (br $l)) (unreachable)")
    }

    pub fn memory_bomb() -> Self {
        Self::new("", "(loop $l (drop (memory.grow (i32.const 1))) (br $l)) (unreachable)")
    }

    pub fn table_bomb() -> Self {
        Self::new(
            "(table $t 10 funcref)",
            "(loop $l (drop (table.grow $t (ref.null func) (i32.const 1000))) (br $l)) (unreachable)",
        )
    }

    pub fn recursion() -> Self {
        Self::new(
            "(func $down (param i32) (result i32) (i32.add (call $down (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))",
            "(call $down (i32.const 0))",
        )
    }

    pub fn unreachable() -> Self {
        Self::new("", "(unreachable)")
    }

    pub fn out_of_bounds() -> Self {
        Self::new("", "(i32.load (i32.const -4))")
    }

    pub fn divide_by_zero() -> Self {
        Self::new("", "(i32.div_u (i32.const 1) (i32.const 0))")
    }

    /// Its status lies outside of its memory.
    pub fn wild_pointer() -> Self {
        Self::new("", echo("(i32.const -16)", "(i32.const 8)"))
    }

    /// Its status is no text.
    pub fn not_utf8() -> Self {
        Self::new(
            "",
            format!("(i32.store (i32.const {TEXT}) (i32.const -1)) {}", echo(&format!("(i32.const {TEXT})"), "(i32.const 4)")),
        )
    }

    /// Its status has 5 MiB.
    pub fn huge_answer() -> Self {
        Self { pages: 96, memory: Memory(8 << 20), ..Self::new("", echo("(i32.const 65536)", "(i32.const 5242880)")) }
    }

    /// Starts with more memory than any host allows.
    pub fn large_memory() -> Self {
        Self { pages: 1040, ..Self::echo() }
    }

    /// Answers like `echo`, and has so many more memories, of 64 KiB each.
    pub fn more_memories(count: usize) -> Self {
        Self { items: "(memory 1)".repeat(count), ..Self::echo() }
    }

    /// Logs like the SDK's panic hook, then traps.
    pub fn panic(message: &str) -> Self {
        let length = message.len();
        let fields = TEXT + 512;
        let (name, value) = (TEXT + 600, TEXT + 700);
        Self::new(
            data(TEXT, message) + &data(name, "panic") + &data(value, "true"),
            format!(
                "(i32.store (i32.const {fields}) (i32.const {name}))
                (i32.store offset=4 (i32.const {fields}) (i32.const 5))
                (i32.store offset=8 (i32.const {fields}) (i32.const {value}))
                (i32.store offset=12 (i32.const {fields}) (i32.const 4))
                (call $log (i32.const 0) (i32.const {TEXT}) (i32.const {length}) (i32.const {fields}) (i32.const 1))
                (unreachable)"
            ),
        )
    }

    /// Reads one object. Its status is what was found, or what the host said instead; none if there is none.
    ///
    /// The answer of `get`: whether it failed 0; found 4, 8, 12, or the kind of the error 4 and its text 8, 12.
    pub fn read(api_version: &str, kind: &str, namespace: &str, name: &str) -> Self {
        let (mut items, mut at, mut arguments) = (String::new(), TEXT, String::new());
        for text in [api_version, kind, namespace, name] {
            items += &data(at, text);
            arguments += &format!("(i32.const {at}) (i32.const {})", text.len());
            at += 256;
        }
        let found = ANSWER + 256;
        let status =
            echo(&format!("(i32.load offset=8 (i32.const {found}))"), &format!("(i32.load offset=12 (i32.const {found}))"));
        Self::new(
            items,
            format!(
                "(call $get {arguments} (i32.const 0) (i32.const 0) (i32.const {found}))
                (if (i32.eqz (i32.or (i32.load8_u (i32.const {found})) (i32.load8_u offset=4 (i32.const {found}))))
                    (then (return (i32.const {ANSWER}))))
                {status}"
            ),
        )
    }

    /// Counts its own calls in memory, and says how many as `after`.
    pub fn counter() -> Self {
        Self::new(
            "",
            format!(
                r#"(i64.store (i32.const {TEXT}) (i64.add (i64.load (i32.const {TEXT})) (i64.const 1)))
                (i32.store8 offset=48 (i32.const {ANSWER}) (i32.const 1))
                (i64.store offset=56 (i32.const {ANSWER}) (i64.load (i32.const {TEXT})))
                (i32.const {ANSWER})"#
            ),
        )
    }

    /// Hundreds of functions that are slow to compile.
    pub fn compile_bomb() -> Self {
        let step =
            "(local.set 0 (i32.add (i32.mul (local.get 0) (i32.load (local.get 0))) (i32.rotl (local.get 0) (i32.const 3))))";
        let branch = format!("(if (i32.and (local.get 0) (i32.const 1)) (then {step}) (else {step}))");
        let body = branch.repeat(2000);
        let items: String =
            (0..60).map(|n| format!("(func $f{n} (export \"f{n}\") (param i32) (result i32) {body} (local.get 0))")).collect();
        Self::new(items, Self::unreachable().body)
    }

    /// A function that promises a number and leaves none.
    pub fn invalid_code() -> Self {
        Self::new("", "")
    }
}

/// A text at this address.
fn data(address: u32, text: &str) -> String {
    format!("(data (i32.const {address}) \"{text}\")")
}

/// The text of a plan with this status.
fn echo(address: &str, length: &str) -> String {
    format!(
        r#"(i32.store8 offset=16 (i32.const {ANSWER}) (i32.const 1))
        (i32.store offset=20 (i32.const {ANSWER}) {address})
        (i32.store offset=24 (i32.const {ANSWER}) {length})
        (i32.store8 offset=48 (i32.const {ANSWER}) (i32.const 1))
        (i64.store offset=56 (i32.const {ANSWER}) (i64.load offset=48 (local.get $request)))
        (i32.store8 offset=64 (i32.const {ANSWER}) (i32.const 1))
        (i32.const {ANSWER})"#
    )
}
