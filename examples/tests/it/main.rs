//! Integration tests of the examples and of the recipes.
#![recursion_limit = "256"]

mod examples;
mod recipes;
mod recipes_gpt2;
