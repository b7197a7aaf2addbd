//! Constants with their documentation as data. The macro generates both from one text, so the
//! reference page cannot become outdated.

/// Declares string constants and a table of them: each value with its documentation.
macro_rules! documented {
    (
        $(#[$table_attribute:meta])*
        $table:ident:
        $( $(#[doc = $text:literal])+ $name:ident = $value:literal; )+
    ) => {
        $( $(#[doc = $text])+ pub const $name: &str = $value; )+

        $(#[$table_attribute])*
        pub const $table: &[(&str, &str)] = &[$( ($value, concat!($($text),+)) ),+];
    };
}

pub(crate) use documented;
