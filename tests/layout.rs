//! The layout of the source: among the files of the operator, and among those of the agent, imports
//! have one direction.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The parts whose files import one another without a circle.
const PARTS: [&str; 2] = ["operator", "agent"];

/// A module by its path from the crate's root.
type Module = Vec<String>;

/// Adds the modules of a folder, each with its file's text; tests are left out.
fn modules(folder: &Path, module: &[String], found: &mut BTreeMap<Module, String>) {
    for entry in fs::read_dir(folder).expect("a folder of the source") {
        let path = entry.expect("an entry of the folder").path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).expect("a name").to_owned();
        let inner = [module, std::slice::from_ref(&stem)].concat();
        if stem == "tests" {
            continue;
        }
        if path.is_dir() {
            modules(&path, &inner, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source file");
            found.insert(if stem == "mod" { module.to_vec() } else { inner }, text);
        }
    }
}

/// The text without comments and without the module of its tests.
fn code(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The paths that a file names: of its imports, and of its code, whole where they begin with what was imported.
fn paths(code: &str) -> Vec<String> {
    let mut imported = Vec::new();
    for statement in code.split(';') {
        let lines: Vec<_> = statement.lines().collect();
        let begins = |line: &&str| ["use ", "pub use "].iter().any(|word| line.trim_start().starts_with(word));
        if let Some(first) = lines.iter().position(begins) {
            let import = lines[first..].join(" ");
            let tree = import.split_once("use ").map(|(_, tree)| tree).unwrap_or_default();
            imported.extend(expanded(tree));
        }
    }
    let is_of_path = |character: char| character.is_alphanumeric() || matches!(character, '_' | ':');
    let words = code.split(|character| !is_of_path(character)).filter(|word| !word.ends_with(':'));
    let named: Vec<_> = words.filter(|word| word.contains("::")).map(|word| whole(word, &imported)).collect();
    let mut paths = [imported, named].concat();
    paths.sort();
    paths.dedup();
    paths
}

/// A path of the code with that of the import by which its beginning is known.
fn whole(path: &str, imported: &[String]) -> String {
    let by = |first: &str| imported.iter().find(|import| import.rsplit("::").next() == Some(first));
    let found = path.split_once("::").and_then(|(first, rest)| Some((by(first)?, rest)));
    found.map_or_else(|| path.to_owned(), |(import, rest)| format!("{import}::{rest}"))
}

/// The paths of an import: `a::{self, b, c::{d}}` is `a`, `a::b` and `a::c::d`.
fn expanded(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((before, inner)) = tree.split_once('{') else {
        return vec![tree.split(" as ").next().unwrap_or_default().trim().to_owned()];
    };
    let inner = inner.strip_suffix('}').unwrap_or(inner);
    let (mut parts, mut depth) = (vec![String::new()], 0);
    for character in inner.chars() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        match (character, depth) {
            (',', 0) => parts.push(String::new()),
            _ => parts.last_mut().expect("a part").push(character),
        }
    }
    let parts = parts.iter().filter(|part| !part.trim().is_empty());
    let path = |inner: String| format!("{before}{inner}").trim_end_matches("::self").to_owned();
    parts.flat_map(|part| expanded(part)).map(path).collect()
}

/// The file that a path leads to from a module: the longest beginning of it that is a module.
fn target(module: &[String], path: &str, known: &BTreeMap<Module, String>) -> Option<Module> {
    let mut segments = path.split("::").map(str::trim).peekable();
    let mut at = module.to_vec();
    match segments.peek().copied()? {
        "crate" => {
            at.clear();
            segments.next();
        }
        "self" => drop(segments.next()),
        "super" => {
            while segments.next_if_eq(&"super").is_some() {
                at.pop();
            }
        }
        _ => {}
    }
    for segment in segments {
        let inner = [&at[..], &[segment.to_owned()]].concat();
        if !known.contains_key(&inner) {
            break;
        }
        at = inner;
    }
    (at != module && known.contains_key(&at)).then_some(at)
}

/// The imports among the files of a part.
fn imports(part: &str, sources: &BTreeMap<Module, String>) -> BTreeMap<Module, BTreeSet<Module>> {
    let of_part = |module: &Module| module.first().is_some_and(|first| first == part);
    let mut imports = BTreeMap::new();
    for (module, text) in sources.iter().filter(|(module, _)| of_part(module)) {
        let named = paths(&code(text)).into_iter().filter_map(|path| target(module, &path, sources));
        imports.insert(module.clone(), named.filter(of_part).collect());
    }
    imports
}

/// Files that import one another in a circle; none if there is no circle.
fn circle(mut imports: BTreeMap<Module, BTreeSet<Module>>) -> Option<Vec<Module>> {
    loop {
        let free: BTreeSet<_> =
            imports.iter().filter(|(_, named)| named.is_empty()).map(|(module, _)| module.clone()).collect();
        if free.is_empty() {
            break;
        }
        imports.retain(|module, _| !free.contains(module));
        imports.values_mut().for_each(|named| named.retain(|module| !free.contains(module)));
    }
    // Each of what is left imports another: following them comes back to one that was seen.
    let mut way: Vec<Module> = vec![imports.keys().next()?.clone()];
    loop {
        let next = imports[way.last()?].first()?.clone();
        if let Some(seen) = way.iter().position(|module| *module == next) {
            return Some(way.split_off(seen));
        }
        way.push(next);
    }
}

#[test]
fn files_import_one_another_without_a_circle() {
    let mut sources = BTreeMap::new();
    modules(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &[], &mut sources);
    for part in PARTS {
        let imports = imports(part, &sources);
        let count: usize = imports.values().map(BTreeSet::len).sum();
        assert!(count > imports.len() / 2, "{part}: {count} imports found in {} files", imports.len());
        if let Some(circle) = circle(imports) {
            let files: Vec<_> = circle.iter().map(|module| module.join("/")).collect();
            panic!("a circle of imports: {} -> {}", files.join(" -> "), files[0]);
        }
    }
}

#[test]
fn a_circle_is_found_and_named() {
    let module = |name: &str| vec![name.to_owned()];
    let imports = |pairs: &[(&str, &[&str])]| {
        pairs.iter().map(|(from, to)| (module(from), to.iter().map(|to| module(to)).collect())).collect()
    };
    assert_eq!(circle(imports(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &[])])), None);
    let found = circle(imports(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"]), ("d", &["a"])]));
    assert_eq!(found, Some(vec![module("b"), module("c")]));
}

#[test]
fn imports_are_read_as_the_compiler_reads_them() {
    let text = "//! Of crate::nobody.\nuse super::a::{self, B, c::{D, E as F}};\npub use g::H;\n\
                fn f() -> crate::i::J { a::k::l(); m::n() }\n\
                #[cfg(test)]\nmod tests {\n    use super::*;\n}\n";
    let found = paths(&code(text));
    let mut wanted = vec!["super::a", "super::a::B", "super::a::c::D", "super::a::c::E", "g::H", "crate::i::J"];
    wanted.extend(["super::a::k::l", "m::n"]);
    wanted.sort_unstable();
    assert_eq!(found, wanted);
    let known: BTreeMap<Module, String> = ["p", "p/m", "p/m/g", "p/a", "p/a/c", "i"]
        .map(|module| (module.split('/').map(str::to_owned).collect(), String::new()))
        .into();
    let of = |path| target(&["p".to_owned(), "m".to_owned()], path, &known).map(|found| found.join("/"));
    assert_eq!(of("super::a::c::D").as_deref(), Some("p/a/c"));
    assert_eq!(of("super::a::B").as_deref(), Some("p/a"));
    assert_eq!(of("g::H").as_deref(), Some("p/m/g"));
    assert_eq!(of("crate::i::J").as_deref(), Some("i"));
    assert_eq!(of("std::fmt"), None);
}
