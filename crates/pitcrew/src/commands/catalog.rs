//! `pitcrew gpus catalog`: the hardware chart, or one card in full.

use pitcrew_cli::{Architecture, CatalogArgs, Class, ExitStatus, Format};
use pitcrew_core::catalog::{self, Card, LookupError};
use serde::Serialize;

use crate::error::Error;
use crate::output::Output;
use crate::view::{card, chart};

const SCHEMA: &str = "pitcrew.dev/catalog/v1alpha1";

#[derive(Serialize)]
struct Chart {
    schema: &'static str,
    cards: Vec<&'static Card>,
}

#[derive(Serialize)]
struct OneCard<'a> {
    schema: &'static str,
    card: card::Document<'a>,
}

pub(crate) fn run(args: &CatalogArgs, output: &mut Output<'_>) -> Result<ExitStatus, Error> {
    let CatalogArgs { name, class, arch } = args;
    match name {
        Some(name) => one(name, output),
        None => all(*class, *arch, output),
    }
}

fn all(
    class: Option<Class>,
    arch: Option<Architecture>,
    output: &mut Output<'_>,
) -> Result<ExitStatus, Error> {
    let wanted = |card: &&Card| {
        class.is_none_or(|c| is(&c, &card.class)) && arch.is_none_or(|a| is(&a, &card.architecture))
    };
    let cards: Vec<&'static Card> = catalog::all().iter().filter(wanted).collect();
    match output.format() {
        Format::Table => output.text(&chart::text(&cards, output.width()))?,
        Format::Json | Format::Yaml => output.document(&Chart {
            schema: SCHEMA,
            cards,
        })?,
    }
    Ok(ExitStatus::Fine)
}

/// The word of a flag is that of the catalogue; a test sees that every word of the catalogue can be asked for.
fn is(flag: &impl clap::ValueEnum, value: &impl ToString) -> bool {
    flag.to_possible_value()
        .is_some_and(|word| word.matches(&value.to_string(), true))
}

fn one(name: &str, output: &mut Output<'_>) -> Result<ExitStatus, Error> {
    let found = catalog::find(name).map_err(|error| not_found(name, error))?;
    match output.format() {
        Format::Table => output.text(&card::text(found))?,
        Format::Json | Format::Yaml => {
            output.document(&OneCard {
                schema: SCHEMA,
                card: card::Document::new(found),
            })?;
        }
    }
    Ok(ExitStatus::Fine)
}

fn not_found(name: &str, error: LookupError) -> Error {
    let name = name.to_owned();
    match error {
        LookupError::Unknown { near, .. } => Error::UnknownCard { name, near },
        LookupError::Ambiguous { candidates, .. } => Error::AmbiguousCard { name, candidates },
    }
}
