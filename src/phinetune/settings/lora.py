"""Settings: the adapter."""

from __future__ import annotations

from phinetune.settings.field import Group, setting


class LoraSettings(Group):
    """The adapter: the small addition that is trained."""

    r: int = setting(
        16,
        "Rank of the adapter: how much it can learn.",
        more="More can be learned: doubling it doubles the parameters, the file and the optimizer's memory. It "
        "overfits sooner, and above 64 there is seldom a gain.",
        less="A smaller adapter that overfits later; below 8 it may not hold many facts.",
        when="The loss stays high although the learning rate is right (try 32), or few pairs are learned by heart "
        "(try 8). Keep alpha at twice the rank.",
        also=("rank", "LoRA rank", "adapter size"),
        ge=1,
        le=1024,
    )
    alpha: float = setting(
        32,
        "Strength of the adapter; alpha / r multiplies what it adds.",
        more="Every step has a stronger effect, much as with a higher learning rate, up to unstable training.",
        less="A weaker, slower adapter.",
        when="The rank changes: alpha = 2 x r is the usual choice. To learn faster or slower, change the learning "
        "rate instead.",
        also=("scaling", "scaling factor", "LoRA scaling"),
        gt=0,
    )
    dropout: float = setting(
        0.05,
        "Share of adapter inputs dropped at random in training.",
        more="Pairs are harder to learn by heart; above 0.2 they are harder to learn at all.",
        less="Faster learning, and earlier overfitting. 0 switches it off.",
        when="The held-out loss rises while the training loss falls, or there are fewer than 100 pairs: try 0.1.",
        also=("regularization", "regularisation"),
        ge=0,
        lt=1,
    )
    target_modules: str | list[str] = setting(
        "all",
        "Layers that get an adapter: all, attention, minimal (q and v), or their names.",
        more="Fewer layers need less memory and time, and learn less. minimal and attention are good for a tone or a "
        "format rather than for new facts, which the feed-forward layers hold.",
        less="Every linear layer of the model gets one, which learns best.",
        when="Memory or file size matters more than quality. Names are those of the model: Phi-2 has q_proj k_proj "
        "v_proj dense fc1 fc2.",
        also=("modules", "layers", "q_proj", "attention layers", "MLP layers"),
    )
