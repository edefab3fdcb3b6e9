//! `plugin!`: one line at the end of a plugin that exports the component and writes its manifest.
//!
//! The manifest is JSON text put together at compile time, in a custom section that survives stripping. Everything wrong
//! that can be seen here is a compile error that says what to write instead; the checks are in `check.rs`.

/// Makes a component of one or several reconcile functions, and says in its manifest what it may do.
///
/// ```
/// # use plugin_sdk::prelude::*;
/// # fn reconcile(_: Object<Value>, _: &Context) -> Result<Plan> { Ok(Plan::new()) }
/// # fn tidy_up(_: Object<Value>, _: &Context) -> Result<Plan> { Ok(Plan::done()) }
/// plugin!(reconcile, for: "shop.example/v1/Shop",
///     owns: ["apps/v1/Deployment", "v1/Service"],   // children: read, written, pruned
///     reads: ["v1/Secret"],                          // further kinds that it may read
///     writes: ["v1/Namespace"],                      // further kinds that it may apply, patch, delete
///     cleanup: tidy_up,                              // called before an object goes; a finalizer holds it until then
///     condition: "ShopReconciled");                  // the host's condition, if `Reconciled` is taken
/// # fn main() {}
/// ```
///
/// `crds: ["../crd.yaml"]` and `settings_schema: "../settings.schema.json"` carry files along, by paths relative to the
/// source file. Several kinds are entries separated by `;`, each with a function of its own:
///
/// ```
/// # use plugin_sdk::prelude::*;
/// # fn shop(_: Object<Value>, _: &Context) -> Result<Plan> { Ok(Plan::new()) }
/// # fn till(_: Object<Value>, _: &Context) -> Result<Plan> { Ok(Plan::new()) }
/// plugin!(
///     shop, for: "shop.example/v1/Shop", owns: ["apps/v1/Deployment"];
///     till, for: "shop.example/v1/Till", reads: ["shop.example/v1/Shop"];
/// );
/// # fn main() {}
/// ```
///
/// Name and version of the plugin are the package's. The manifest is also there as `MANIFEST`, for tests.
#[macro_export]
macro_rules! plugin {
    ($($($function:ident)::+ $(, $key:ident : $value:tt)* $(,)?);+ $(;)?) => {
        /// What this component says of itself: the JSON text of its custom section `reef.manifest`.
        #[doc(hidden)]
        #[allow(dead_code, reason = "a plugin's tests may look at it")]
        pub const MANIFEST: &str = ::core::concat!(
            "{\"name\":\"", ::core::env!("CARGO_PKG_NAME"),
            "\",\"version\":\"", ::core::env!("CARGO_PKG_VERSION"),
            "\",\"reconciles\":[", $crate::__plugin_entries!($([$($key $value)*])+), "]}",
        );

        const _: () = {
            $crate::__plugin_check!(@package);
            const KINDS: &[&str] = &[$($crate::__plugin_kind!($($key $value)*)),+];
            $(
                const _: () = {
                    const FOR: &str = $crate::__plugin_kind!($($key $value)*);
                    const OPTIONS: &[&str] = &[$(::core::stringify!($key)),*];
                    $crate::__plugin_check!(@twice FOR KINDS; $($key $value)*);
                    $($crate::__plugin_check!(@option OPTIONS $key);)*
                    $($crate::__plugin_check!(@value FOR $key $value);)*
                    $($crate::__plugin_section!($key $value);)*
                };
            )+

            #[cfg(target_family = "wasm")]
            $crate::__plugin_bytes!("reef.manifest", MANIFEST.len(), $crate::__private::copied(MANIFEST.as_bytes()));

            fn entry(kind: &str, object: ::std::string::String, cx: &$crate::Context) -> $crate::Result<$crate::Plan> {
                $(
                    if kind == $crate::__plugin_kind!($($key $value)*) {
                        return $crate::__plugin_call!(($($function)::+) object, cx; $($key $value)*);
                    }
                )+
                ::core::result::Result::Err($crate::__private::unknown_kind(kind))
            }
            const _: $crate::__private::Entry = entry;

            #[cfg(target_family = "wasm")]
            const _: () = {
                use $crate::__private::bindings::exports::reef::plugin::reconciler::{Failure, Guest, Plan, Request};
                struct Component;
                impl Guest for Component {
                    fn reconcile(request: Request) -> ::core::result::Result<Plan, Failure> {
                        $crate::__private::enter(request, entry)
                    }
                }
                $crate::__private::bindings::export!(Component with_types_in $crate::__private::bindings);
            };
        };
    };
    ($($anything:tt)*) => {
        ::core::compile_error!(
            "plugin!: write `plugin!(reconcile, for: \"demo.reef.dev/v1/Hello\", owns: [\"v1/ConfigMap\"]);`: \
             the name of a function, then options `name: value`, and `;` between several kinds"
        );
    };
}

/// The entries of the manifest, joined by commas.
#[doc(hidden)]
#[macro_export]
macro_rules! __plugin_entries {
    ([$($key:ident $value:tt)*]) => {
        ::core::concat!(
            "{", $($crate::__plugin_json!($key $value),)*
            "\"cleanup\":", $crate::__plugin_has_cleanup!($($key)*), "}",
        )
    };
    ($first:tt $($rest:tt)+) => {
        ::core::concat!($crate::__plugin_entries!($first), ",", $crate::__plugin_entries!($($rest)+))
    };
}

/// One option in the manifest, with a comma behind it; or the sentence that says how to write it.
#[doc(hidden)]
#[macro_export]
macro_rules! __plugin_json {
    (for $kind:literal) => { ::core::concat!("\"for\":\"", $kind, "\",") };
    (owns [$($kind:literal),* $(,)?]) => { ::core::concat!("\"owns\":[", $crate::__plugin_list!($($kind)*), "],") };
    (reads [$($kind:literal),* $(,)?]) => { ::core::concat!("\"reads\":[", $crate::__plugin_list!($($kind)*), "],") };
    (writes [$($kind:literal),* $(,)?]) => { ::core::concat!("\"writes\":[", $crate::__plugin_list!($($kind)*), "],") };
    (condition $name:literal) => { ::core::concat!("\"condition\":\"", $name, "\",") };
    (cleanup $function:ident) => { "" };
    (crds [$($path:literal),* $(,)?]) => { "" };
    (settings_schema $path:literal) => { "" };
    (for $other:tt) => { ::core::compile_error!("plugin!: `for` takes one kind, as in `for: \"demo.reef.dev/v1/Hello\"`") };
    (owns $other:tt) => { ::core::compile_error!("plugin!: `owns` takes a list of kinds, as in `owns: [\"v1/ConfigMap\"]`") };
    (reads $other:tt) => { ::core::compile_error!("plugin!: `reads` takes a list of kinds, as in `reads: [\"v1/Secret\"]`") };
    (writes $other:tt) => { ::core::compile_error!("plugin!: `writes` takes a list of kinds, as in `writes: [\"v1/Namespace\"]`") };
    (condition $other:tt) => { ::core::compile_error!("plugin!: `condition` takes a name, as in `condition: \"ShopReconciled\"`") };
    (cleanup $other:tt) => { ::core::compile_error!("plugin!: `cleanup` takes the name of a function, as in `cleanup: tidy_up`") };
    (crds $other:tt) => { ::core::compile_error!("plugin!: `crds` takes a list of files, as in `crds: [\"../crd.yaml\"]`") };
    (settings_schema $other:tt) => {
        ::core::compile_error!("plugin!: `settings_schema` takes a file, as in `settings_schema: \"../settings.schema.json\"`")
    };
    ($key:ident $other:tt) => {
        ::core::compile_error!(::core::concat!(
            "plugin!: there is no option `", ::core::stringify!($key),
            "`: use for, owns, reads, writes, cleanup, condition, crds or settings_schema"
        ))
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __plugin_list {
    () => { "" };
    ($first:literal $($rest:literal)*) => { ::core::concat!("\"", $first, "\"" $(, ",\"", $rest, "\"")*) };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __plugin_has_cleanup {
    () => { false };
    (cleanup $($rest:ident)*) => { true };
    ($key:ident $($rest:ident)*) => { $crate::__plugin_has_cleanup!($($rest)*) };
}

/// The kind that an entry is for.
#[doc(hidden)]
#[macro_export]
macro_rules! __plugin_kind {
    () => { ::core::compile_error!("plugin!: say which kind the function reconciles, as in `for: \"demo.reef.dev/v1/Hello\"`") };
    (for $kind:literal $($rest:tt)*) => { $kind };
    (for $kind:tt $($rest:tt)*) => { "" };
    ($key:ident $value:tt $($rest:tt)*) => { $crate::__plugin_kind!($($rest)*) };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __plugin_call {
    (($function:path) $object:ident, $cx:ident;) => { $crate::__private::reconcile($function, $object, $cx) };
    (($function:path) $object:ident, $cx:ident; cleanup $cleanup:ident $($rest:tt)*) => {
        $crate::__private::cleanup($function, $cleanup, $object, $cx)
    };
    (($function:path) $object:ident, $cx:ident; $key:ident $value:tt $($rest:tt)*) => {
        $crate::__plugin_call!(($function) $object, $cx; $($rest)*)
    };
}

/// What is wrong although it parses.
#[doc(hidden)]
#[macro_export]
macro_rules! __plugin_check {
    (@package) => {
        const _: () = ::core::assert!($crate::__private::is_dns_label(::core::env!("CARGO_PKG_NAME")), "{}", ::core::concat!(
            "plugin!: the package name `", ::core::env!("CARGO_PKG_NAME"),
            "` becomes the plugin's name: use at most 63 of a-z, 0-9 and `-` in Cargo.toml, as in `my-plugin`"
        ));
    };
    (@twice $for:ident $kinds:ident; $($options:tt)*) => {
        const _: () = ::core::assert!($crate::__private::appears_once($for, $kinds), "{}", ::core::concat!(
            "plugin!: `", $crate::__plugin_kind!($($options)*), "` stands in two entries: give each kind one function"
        ));
    };
    (@option $options:ident $key:ident) => {
        const _: () = ::core::assert!($crate::__private::count(::core::stringify!($key), $options) == 1, "{}", ::core::concat!(
            "plugin!: `", ::core::stringify!($key), "` stands twice in one entry: keep one"
        ));
    };
    (@value $for:ident for $kind:literal) => { $crate::__plugin_check!(@kind $kind); };
    (@value $for:ident owns [$($kind:literal),* $(,)?]) => {
        $(
            $crate::__plugin_check!(@kind $kind);
            const _: () = ::core::assert!(!$crate::__private::same_group_kind($for, $kind), "{}", ::core::concat!(
                "plugin!: `", $kind, "` is owned by its own kind: an object cannot be its own child, take it out of `owns`"
            ));
        )*
    };
    (@value $for:ident reads [$($kind:literal),* $(,)?]) => { $($crate::__plugin_check!(@kind $kind);)* };
    (@value $for:ident writes [$($kind:literal),* $(,)?]) => { $($crate::__plugin_check!(@kind $kind);)* };
    (@value $for:ident condition $name:literal) => {
        const _: () = ::core::assert!($crate::__private::is_condition($name), "{}", ::core::concat!(
            "plugin!: `", $name, "` is no name of a condition: use CamelCase, as in `ShopReconciled`"
        ));
    };
    (@value $for:ident $key:ident $value:tt) => {};
    (@kind $kind:literal) => {
        const _: () = ::core::assert!($crate::__private::is_kind($kind), "{}", ::core::concat!(
            "plugin!: `", $kind, "` is no kind: write group/version/Kind, or version/Kind in the core group, \
             as in `apps/v1/Deployment` or `v1/ConfigMap`"
        ));
    };
}

/// The files that go along.
#[doc(hidden)]
#[macro_export]
macro_rules! __plugin_section {
    (crds [$($path:literal),* $(,)?]) => {
        $(
            const _: () = {
                const FILE: &[u8] = ::core::include_bytes!($path);
                #[cfg(target_family = "wasm")]
                $crate::__plugin_bytes!("reef.crd", FILE.len() + $crate::__private::EXTRA, $crate::__private::document(FILE));
            };
        )*
    };
    (settings_schema $path:literal) => {
        const _: () = {
            const FILE: &[u8] = ::core::include_bytes!($path);
            #[cfg(target_family = "wasm")]
            $crate::__plugin_bytes!("reef.settings", FILE.len(), $crate::__private::copied(FILE));
        };
    };
    ($key:ident $value:tt) => {};
}

/// A custom section of the component. Not `#[used]`: that would keep a second copy among the data of every instance.
#[doc(hidden)]
#[macro_export]
macro_rules! __plugin_bytes {
    ($section:literal, $length:expr, $bytes:expr) => {
        const _: () = {
            #[allow(dead_code, reason = "it is there to be linked")]
            #[unsafe(link_section = $section)]
            static SECTION: [u8; $length] = $bytes;
        };
    };
}
