//! The master keys of a process: their files, which of them seals, and how a process follows both.

mod files;
mod following;
mod sealer;

pub use self::{
    files::{at_hand, load},
    following::{Following, Process},
    sealer::{IfMissing, current, sealer},
};
