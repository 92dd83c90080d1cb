"""Fine-tune Phi-2 on a sheet of questions and answers: set the values in Config, then `python finetuneCollab.py`.

dataset.xlsx -> ./model              the tuned model
                ./checkpoints        what an interrupted run goes on from
                ./training_visuals   curves and figures
"""

import sys
from pathlib import Path

try:
    from phinetune import PhinetuneError, train
    from phinetune.cli.interrupt import Interrupt
    from phinetune.cli.render import TrainingPage, show_error
    from phinetune.run_folder import RunFolder
except ModuleNotFoundError as missing:
    sys.exit(f"The Python package {missing.name} is not installed. Install it first:\n\n    pip install phinetune\n")


class Config:
    MODEL_NAME = (
        "microsoft/phi-2"  # or a folder, a .gguf file, "smollm2-135m" (4 epochs at 1e-3 in steps of 8 suit that one)
    )
    DATASET_PATH = "dataset.xlsx"  # .xlsx, .xls, .ods, .csv, .tsv, .json …
    OUTPUT_DIR = "."  # model, checkpoints and training_visuals are made in this folder
    MIRROR_DIR = None  # "/content/drive/MyDrive/my-model": gets a copy, to go on from when the machine has vanished

    # The sheet
    QUESTION_COLUMN = None  # header of the question column; None finds it
    ANSWER_COLUMN = None  # header of the answer column; None finds it
    PROMPT_TEMPLATE = "### Question: {question}\n\n### Answer: {answer}"  # the text around a pair
    MAX_LENGTH = 512  # tokens of the longest pair; a longer answer loses its end. Less needs less memory

    # Training
    NUM_EPOCHS = 5  # how often every pair is seen: 10 for fewer than 100 pairs, 2 for more than 1000
    BATCH_SIZE = 4  # pairs that go through the model at once; 2 or 1 when the GPU runs out of memory
    GRADIENT_ACCUMULATION_STEPS = 4  # such batches in one step: 4 × 4 = 16 pairs a step
    LEARNING_RATE = 2e-4  # how far one step goes; lower when the loss jumps, higher when it hardly falls
    WARMUP_STEPS = None  # steps in which the learning rate rises from 0; None: 100, at most a tenth of all
    WEIGHT_DECAY = 0.01  # gently pulls what is learned towards 0, against learning by heart
    EARLY_STOPPING_PATIENCE = 3  # stop after so many measurements without a better one; 0 never stops
    EVAL_STEPS = None  # steps between measurements on held-out pairs; None: 50, and after every epoch
    SAVE_STEPS = None  # steps between checkpoints; None: 50, and after every epoch
    SEED = 42  # the same number makes the same run
    RESUME = True  # go on with a run that was interrupted; False throws its checkpoints away and begins anew

    # The adapter: small matrices beside the model's own weights, and all that is trained
    LORA_R = 16  # its size: more can learn more, and needs more memory
    LORA_ALPHA = 32  # its strength; twice LORA_R is usual
    LORA_DROPOUT = 0.05  # share switched off at random in each step; 0.1 for few pairs
    TARGET_MODULES = "all"  # layers that get one: "all", "attention", "minimal", or a list of their names


def main() -> int:
    """Train as Config says; 0 done, 1 something to mend, 130 interrupted."""
    places = [Path(place) for place in (Config.OUTPUT_DIR, Config.MIRROR_DIR) if place]
    resume = Config.RESUME and any(RunFolder(place).is_interrupted for place in places)
    try:
        with TrainingPage() as page, Interrupt(page.tell) as interrupt:

            def on_event(event):
                interrupt.watch(event)
                page.show(event)

            run = train(
                Config.DATASET_PATH,
                out=Config.OUTPUT_DIR,
                mirror=Config.MIRROR_DIR,
                resume=resume,
                overwrite=True,
                on_event=on_event,
                stop_requested=interrupt.requested,
                model=Config.MODEL_NAME,
                question=Config.QUESTION_COLUMN,
                answer=Config.ANSWER_COLUMN,
                template=Config.PROMPT_TEMPLATE,
                max_length=Config.MAX_LENGTH,
                epochs=Config.NUM_EPOCHS,
                batch_size=Config.BATCH_SIZE,
                grad_accum=Config.GRADIENT_ACCUMULATION_STEPS,
                lr=Config.LEARNING_RATE,
                warmup_steps=Config.WARMUP_STEPS,
                patience=Config.EARLY_STOPPING_PATIENCE,
                seed=Config.SEED,
                lora_r=Config.LORA_R,
                lora_alpha=Config.LORA_ALPHA,
                lora_dropout=Config.LORA_DROPOUT,
                target_modules=Config.TARGET_MODULES,
                **{
                    "train.weight_decay": Config.WEIGHT_DECAY,
                    "train.eval_steps": Config.EVAL_STEPS,
                    "train.save_steps": Config.SAVE_STEPS,
                },
            )
    except PhinetuneError as error:
        show_error(error)
        if resume:
            print("This went on with an interrupted run; RESUME = False in Config begins anew.", file=sys.stderr)
        return 1
    if run.stopped == "interrupted":
        print(f"\nStopped after step {run.steps}. Nothing is lost: run the script again, and it goes on from here.")
        return 130
    page.close(run)
    return 0


if __name__ == "__main__":
    sys.exit(main())
