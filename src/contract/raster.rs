//! The formats that GDAL reads in the server. PostGIS enables none: some of them take a file of the server, or an address,
//! from the data that they decode, and the server's files include keys.

use std::collections::BTreeMap;

/// The setting that enables formats, by names with spaces between them.
pub const DRIVERS: &str = "postgis.gdal_enabled_drivers";
/// Formats whose data refers to nothing else, and the word for none.
const SELF_CONTAINED: [&str; 5] = ["GTiff", "PNG", "JPEG", "GIF", "DISABLE_ALL"];

/// Checks the formats that a spec enables.
///
/// # Errors
/// One that could read a file of the server.
pub fn check(parameters: &BTreeMap<String, String>) -> Result<(), String> {
    let mut names = parameters.get(DRIVERS).into_iter().flat_map(|value| value.split_whitespace());
    match names.find(|name| !SELF_CONTAINED.contains(name)) {
        None => Ok(()),
        Some(name) => Err(format!(
            "spec.postgres.parameters: {DRIVERS} enables {name}, by which a query could read files of the server: only {} \
             may be enabled",
            SELF_CONTAINED.join(", ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_that_reads_files_of_the_server_is_refused_by_its_name() {
        let with = |value: &str| check(&BTreeMap::from([(DRIVERS.to_owned(), value.to_owned())]));
        assert_eq!(with("GTiff PNG  JPEG"), Ok(()));
        assert_eq!(with("DISABLE_ALL"), Ok(()));
        assert_eq!(check(&BTreeMap::new()), Ok(()));
        for (value, name) in [("PNG VRT", "VRT"), ("ENABLE_ALL", "ENABLE_ALL"), ("GTiff,VRT", "GTiff,VRT")] {
            let refused = with(value).expect_err(value);
            assert!(refused.contains(&format!("enables {name},")), "{refused}");
        }
    }
}
