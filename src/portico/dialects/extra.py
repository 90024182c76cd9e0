"""Names in a request that no shape here knows. Those of samplers (ignore_eos, min_tokens, mirostat, ...) go
on to the engine, which ignores what it does not know; these two groups do not."""

from __future__ import annotations

HOSTED = frozenset(
    """
    audio client_metadata metadata modalities moderation prediction prompt_cache_key prompt_cache_options
    prompt_cache_retention safety_identifier service_tier store user verbosity web_search_options
    context format keep_alive options raw system template think truncate
    """.split()  # noqa: SIM905  (a list of names is read as lines, not as one column)
)
"""Names that mean something to a hosted API or to the other dialect only."""

STRUCTURAL = frozenset(
    """
    model models messages prompt input suffix echo stream stream_options stream_interval n n_predict
    max_tokens max_completion_tokens tools tool_choice functions function_call parallel_tool_calls
    response_format logprobs top_logprobs n_probs prompt_logprobs chat_template chat_template_kwargs
    encoding_format dimensions reasoning reasoning_effort reasoning_format prompt_embeds
    kv_transfer_params id_slot slot_id return_progress return_tokens return_token_ids response_fields
    timings_per_token verbose
    """.split()  # noqa: SIM905
)
"""Names that change what a request or its reply is instead of how tokens are chosen. From among the unknown
names, or from Ollama's options, they would overrule the request: another prompt, no limit, other chunks."""
