"""What a model's own tokenizer files say: token ids, control tokens, the chat template. Imports no transformers, except
in ``library``, which holds that library's tokenizers to these files."""
