//! A picture of the table, for the README. Light and dark: the colours follow the reader's.

use std::fmt::Write;

use crate::results::{Line, Results, Section};
use crate::suite::Suite;
use crate::table::{cell, ratio};

pub fn render(_results: &Results) -> String { String::new() }
