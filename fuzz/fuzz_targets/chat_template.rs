#![no_main]
#![recursion_limit = "256"]

lora_fuzz::target!(chat_template);
