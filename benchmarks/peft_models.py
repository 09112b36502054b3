"""Models of the peers: the published shapes in transformers, with random weights and without dropout."""

from peft import LoraConfig, get_peft_model
from transformers import (
    BertConfig, BertForSequenceClassification, DebertaV2Config, DebertaV2ForSequenceClassification,
    GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM, RobertaConfig,
    RobertaForSequenceClassification,
)

PRESETS = ["gpt2", "gpt2-medium", "roberta-base", "deberta-v3-base", "minilm", "smollm2-135m", "qwen3-0.6b"]
GPT2_DROPOUT = dict(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
DROPOUT = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def base(preset):
    """Returns a model, and the modules that PEFT adapts in it by default."""
    match preset:
        case "gpt2":
            return GPT2LMHeadModel(GPT2Config(**GPT2_DROPOUT)), ["c_attn"]
        case "gpt2-medium":
            config = GPT2Config(n_embd=1024, n_layer=24, n_head=16, **GPT2_DROPOUT)
            return GPT2LMHeadModel(config), ["c_attn"]
        case "roberta-base":
            config = RobertaConfig(
                vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5, **DROPOUT)
            return RobertaForSequenceClassification(config), ["query", "value"]
        case "deberta-v3-base":
            config = DebertaV2Config(
                vocab_size=128100, hidden_size=768, num_hidden_layers=12, num_attention_heads=12,
                intermediate_size=3072, relative_attention=True, position_buckets=256, norm_rel_ebd="layer_norm",
                share_att_key=True, pos_att_type=["p2c", "c2p"], position_biased_input=False, type_vocab_size=0,
                pooler_dropout=0, **DROPOUT)
            return DebertaV2ForSequenceClassification(config), ["query_proj", "value_proj"]
        case "minilm":
            config = BertConfig(hidden_size=384, num_hidden_layers=6, intermediate_size=1536, **DROPOUT)
            return BertForSequenceClassification(config), ["query", "value"]
        case "smollm2-135m":
            config = LlamaConfig(
                vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
                num_key_value_heads=3, max_position_embeddings=8192, tie_word_embeddings=True)
            return LlamaForCausalLM(config), ["q_proj", "v_proj"]
        case "qwen3-0.6b":
            config = Qwen3Config(
                vocab_size=151936, hidden_size=1024, intermediate_size=3072, num_hidden_layers=28, num_attention_heads=16,
                num_key_value_heads=8, head_dim=128, max_position_embeddings=40960, tie_word_embeddings=True)
            return Qwen3ForCausalLM(config), ["q_proj", "v_proj"]
    raise SystemExit(f"no preset {preset}; expected one of {', '.join(PRESETS)}")


def with_adapter(model, targets, rank):
    """Returns the model with LoRA."""
    gpt2 = model.config.model_type == "gpt2"
    return get_peft_model(model, LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules=targets, fan_in_fan_out=gpt2 and targets != "all-linear",
        task_type="CAUSAL_LM" if is_language_model(model) else "SEQ_CLS"))


def is_language_model(model):
    """True for a model whose labels are tokens."""
    return getattr(model, "base_model", model).config.model_type in ("gpt2", "llama", "qwen3")
