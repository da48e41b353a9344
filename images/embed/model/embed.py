"""all-MiniLM-L6-v2: turns a sentence into a vector of 384 numbers and length 1."""

import numpy
import onnxruntime
import tokenizers

WEIGHTS = "/srv/model/model.onnx"
TOKENIZER = "/srv/model/tokenizer.json"
MOST_TOKENS = 256


class Embedder:
    def load(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        providers = ["CPUExecutionProvider"]
        self.session = onnxruntime.InferenceSession(WEIGHTS, options, providers=providers)
        self.tokenizer = tokenizers.Tokenizer.from_file(TOKENIZER)
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(MOST_TOKENS)

    def embed(self, texts):
        """Returns a vector for each text, and an error for each input that is not a text."""
        good = [index for index, text in enumerate(texts) if isinstance(text, str)]
        results = [TypeError(f"want a text, got {type(text).__name__}") for text in texts]
        encodings = self.tokenizer.encode_batch([texts[index] for index in good])
        # Texts of the same length share a run. So no text is padded, and each vector is the same as
        # if its text had been alone.
        by_length = {}
        for index, encoding in zip(good, encodings):
            by_length.setdefault(len(encoding.ids), []).append((index, encoding.ids))
        for group in by_length.values():
            vectors = self.run(numpy.array([ids for _, ids in group], dtype=numpy.int64))
            for (index, _), vector in zip(group, vectors):
                results[index] = vector
        return results

    def count(self, text):
        """Returns the number of tokens of a text."""
        return len(self.tokenizer.encode(text).ids)

    def run(self, ids):
        states = self.session.run(
            ["last_hidden_state"],
            {
                "input_ids": ids,
                "attention_mask": numpy.ones_like(ids),
                "token_type_ids": numpy.zeros_like(ids),
            },
        )[0]
        means = states.mean(axis=1)
        return means / numpy.linalg.norm(means, axis=1, keepdims=True)
