"""The load snippets of a model card, as code that runs once its first lines name a folder, an image and two texts."""

_OURS_SEES = """```python
from rewardmodels import RewardModel

model = RewardModel.from_pretrained("path/to/this/folder")
model.get_score("What is this?", "a cat", images=["cat.png"])
model.compare("What is this?", "a cat", "a dog", images=["cat.png"]).margin
```"""

_OURS_READS = """```python
from rewardmodels import RewardModel

model = RewardModel.from_pretrained("path/to/this/folder")
model.get_score("What is a cat?", "an animal")
model.compare("What is a cat?", "an animal", "a stone").margin
```"""

_PLAIN_SEES = """```python
import torch
from PIL import Image
from transformers import AutoModelForSequenceClassification, AutoProcessor

folder = "path/to/this/folder"
model = AutoModelForSequenceClassification.from_pretrained(folder{trust}).eval()
processor = AutoProcessor.from_pretrained(folder)
chat = [
    {{"role": "user", "content": [{{"type": "image"}}, {{"type": "text", "text": "What is this?"}}]}},
    {{"role": "assistant", "content": [{{"type": "text", "text": "a cat"}}]}},
]
text = processor.apply_chat_template(chat, tokenize=False)
image = Image.open("cat.png").convert("RGB")
inputs = processor(text=[text], images=[[image]], return_tensors="pt", add_special_tokens={special})
with torch.no_grad():
    score = model(**inputs).logits[0, 0].item()
```"""

_PLAIN_READS = """```python
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

folder = "path/to/this/folder"
model = AutoModelForSequenceClassification.from_pretrained(folder{trust}).eval()
tokenizer = AutoTokenizer.from_pretrained(folder)
chat = [{{"role": "user", "content": "What is a cat?"}}, {{"role": "assistant", "content": "an animal"}}]
text = tokenizer.apply_chat_template(chat, tokenize=False)
inputs = tokenizer([text], return_tensors="pt", add_special_tokens={special})
with torch.no_grad():
    score = model(**inputs).logits[0, 0].item()
```"""

_TRL_SEES = """TRL's GRPO passes only text to a checkpoint that it is given as a reward, so wrap this one in a function:

```python
from rewardmodels import RewardModel

model = RewardModel.from_pretrained("path/to/this/folder")


def reward(prompts, completions, image, **_):
    texts = [completion[0]["content"] for completion in completions]
    asked = [prompt[-1]["content"] for prompt in prompts]
    words = [said if isinstance(said, str) else said[-1]["text"] for said in asked]
    return [model.get_score(*row[:2], images=[row[2]]) for row in zip(words, texts, image)]


# trainer = GRPOTrainer(..., reward_funcs=reward)
```"""

_TRL_READS = """TRL takes the folder as it is:

```python
# trainer = GRPOTrainer(..., reward_funcs="path/to/this/folder")
```"""


def snippets(native: bool, sees: bool, adds_special_tokens: bool) -> str:
    """Return how to load a checkpoint here, in transformers alone, and in TRL.

    Args:
        native: Whether transformers has the class itself; else the checkpoint's own file has to be run.
        sees: Whether images are read.
        adds_special_tokens: Whether the tokenizer adds its marks to the rendered chat.
    """
    plain = (_PLAIN_SEES if sees else _PLAIN_READS).format(
        trust="" if native else ", trust_remote_code=True", special=adds_special_tokens
    )
    note = "" if native else " The class is in `reward_head.py`, which is read from the folder: look at it first."
    return "\n\n".join(
        [
            "With Sightcheck:",
            _OURS_SEES if sees else _OURS_READS,
            f"With transformers alone.{note}",
            plain,
            "In TRL. " + (_TRL_SEES if sees else _TRL_READS),
        ]
    )
