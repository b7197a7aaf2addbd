//! Visits every node of a parsed statement.
//!
//! It is a serializer that writes nothing: each of the parser's types can be serialized completely,
//! so no node can be missed, as in a hand-written walk. As JSON values the tree of one large
//! `INSERT` would need gigabytes.

use std::fmt::Error;

use pg_query::protobuf::OnConflictAction;
use serde::ser::{Impossible, Serialize, SerializeSeq, SerializeStruct, Serializer};
use serde_json::Value;

use super::{functions, identifier, qualified};

/// Why evaluated parts are held: data-modifying statements, and calls of functions that are not
/// built in.
pub fn evaluated(tree: &impl Serialize) -> Vec<String> {
    let mut walk = Walk { reasons: Vec::new() };
    if tree.serialize(&mut walk).is_err() {
        walk.add("a statement that cannot be analysed".to_owned());
    }
    walk.reasons
}

/// Recursion is safe: the crate decodes no tree with more than a hundred nested messages.
struct Walk {
    reasons: Vec<String>,
}

impl Walk {
    fn add(&mut self, reason: String) {
        if !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
    }

    fn function(&mut self, name: &Value) {
        if let Some(name) = unknown(name, functions::is_harmless) {
            self.add(format!("calls the function {name}, which can do anything"));
        }
    }

    fn operator(&mut self, name: &Value) {
        if let Some(name) = unknown(name, functions::is_own_operator) {
            self.add(format!("uses the operator {name}, which can do anything"));
        }
    }
}

/// The node that is being visited.
struct Fields<'a> {
    walk: &'a mut Walk,
    kind: &'static str,
    /// The table that it writes to; the first field of a statement that does.
    target: String,
}

impl SerializeStruct for Fields<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, field: &'static str, value: &T) -> Result<(), Error> {
        match (self.kind, field) {
            ("FuncCall", "funcname") => self.walk.function(&json(value)?),
            ("AExpr", "name") | (_, "oper_name" | "use_op") => self.walk.operator(&json(value)?),
            ("InsertStmt", "relation") => self.target = target(&json(value)?),
            ("InsertStmt", "on_conflict_clause")
                if json(value)?["action"] == OnConflictAction::OnconflictUpdate as i32 =>
            {
                self.walk.add(format!("overwrites rows of {} that exist already", self.target));
            }
            ("DeleteStmt", "relation") => self.walk.add(format!("deletes rows of {}", target(&json(value)?))),
            ("UpdateStmt", "relation") => self.walk.add(format!("overwrites rows of {}", target(&json(value)?))),
            ("MergeStmt", "relation") => {
                let target = target(&json(value)?);
                self.walk.add(format!("merges into {target}, which can overwrite and delete rows"));
            }
            _ => {}
        }
        value.serialize(&mut *self.walk)
    }

    fn end(self) -> Result<(), Error> {
        Ok(())
    }
}

fn json<T: Serialize + ?Sized>(value: &T) -> Result<Value, Error> {
    serde_json::to_value(value).map_err(|_| Error)
}

/// The qualified name, unless it is a known built-in one.
fn unknown(name: &Value, known: fn(&str) -> bool) -> Option<String> {
    let parts: Vec<&str> = name.as_array()?.iter().filter_map(|part| part["node"]["String"]["sval"].as_str()).collect();
    match parts[..] {
        [] => None,
        [name] | ["pg_catalog", name] if known(name) => None,
        // An operator's name needs no quotes.
        [.., last] if last.bytes().all(|byte| byte.is_ascii_punctuation() && byte != b'"') => Some(parts.join(".")),
        _ => Some(parts.iter().map(|part| identifier(part)).collect::<Vec<_>>().join(".")),
    }
}

fn target(relation: &Value) -> String {
    let part = |field: &str| relation[field].as_str().unwrap_or_default();
    qualified(part("schemaname"), part("relname"))
}

impl SerializeSeq for &mut Walk {
    type Ok = ();
    type Error = Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        value.serialize(&mut **self)
    }

    fn end(self) -> Result<(), Error> {
        Ok(())
    }
}

macro_rules! leaves {
    ($($method:ident($kind:ty))*) => {
        $(fn $method(self, _: $kind) -> Result<(), Error> { Ok(()) })*
    };
}

/// The types have fields, lists, options and nodes; other shapes do not occur in them, and are
/// refused so that no content is missed.
impl<'a> Serializer for &'a mut Walk {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Self;
    type SerializeStruct = Fields<'a>;
    type SerializeTuple = Impossible<(), Error>;
    type SerializeTupleStruct = Impossible<(), Error>;
    type SerializeTupleVariant = Impossible<(), Error>;
    type SerializeMap = Impossible<(), Error>;
    type SerializeStructVariant = Impossible<(), Error>;

    leaves! {
        serialize_bool(bool) serialize_char(char) serialize_str(&str) serialize_bytes(&[u8])
        serialize_i8(i8) serialize_i16(i16) serialize_i32(i32) serialize_i64(i64)
        serialize_u8(u8) serialize_u16(u16) serialize_u32(u32) serialize_u64(u64)
        serialize_f32(f32) serialize_f64(f64) serialize_unit_struct(&'static str)
    }

    fn serialize_none(self) -> Result<(), Error> {
        Ok(())
    }

    fn serialize_unit(self) -> Result<(), Error> {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<(), Error> {
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self, Error> {
        Ok(self)
    }

    fn serialize_struct(self, kind: &'static str, _: usize) -> Result<Fields<'a>, Error> {
        // A statement in a statement, such as the EXECUTE of a CREATE TABLE AS.
        let known = matches!(
            kind,
            "SelectStmt" | "InsertStmt" | "UpdateStmt" | "DeleteStmt" | "MergeStmt" | "CreateTableAsStmt" | "IndexStmt"
        );
        if kind.ends_with("Stmt") && !known {
            self.add("runs another statement, which can do anything".to_owned());
        }
        Ok(Fields { walk: self, kind, target: String::new() })
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Error> {
        Err(Error)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeTupleStruct, Error> {
        Err(Error)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Error> {
        Err(Error)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, Error> {
        Err(Error)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Error> {
        Err(Error)
    }
}
