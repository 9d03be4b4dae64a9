"""How people reach a model: an API in OpenAI's form, and what keeps it safe."""
