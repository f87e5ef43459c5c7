//! The code that this example shares with others that train on the same digits.
//!
//! ```text
//! data       the images, and loaders of them
//! model      a small convolutional network
//! average    a moving average of a model's weights
//! save_freq  how often to take a backup, as given on a command line
//! crash      a crash on demand
//! digest     a short hash of everything that a training trains and saves
//! ```

pub mod average;
pub mod crash;
pub mod data;
pub mod digest;
pub mod model;
pub mod save_freq;
