"""Texts of `--help`: the commands, and the options that people use most. The parser knows all of them."""

COMMANDS = """\
Train image classifiers and export them as one ONNX file that anybody can run.

  python -m cifar_lightning fit [--config configs/X.yaml]   train; without a config the tutorial's CNN on CIFAR-10
  python -m cifar_lightning validate --ckpt_path P          metrics on the validation set
  python -m cifar_lightning test --ckpt_path P              metrics on the test set
  python -m cifar_lightning predict --ckpt_path P           predictions to a CSV file
  python -m cifar_lightning export --ckpt_path P            write model.onnx, proven equal to the checkpoint
  python -m cifar_lightning verify model.onnx --against P   compare the file with the checkpoint on this machine
  python -m cifar_lightning reproduce runs/X/version_N      train it again: are the weights the same?
  python -m cifar_lightning runs [DIR]                      which run is best, and what differs between them
  python -m cifar_lightning sweep --config configs/sweeps/X.yaml   search hyper-parameters, on validation only

  python -m cifar_lightning COMMAND --help                  the options of a command
  python -m cifar_lightning --version

First time? fit --config configs/quickstart.yaml takes a minute and needs no network.
To run model.onnx without PyTorch: python -m cifar_onnx --help
"""

_FIT = """\
python -m cifar_lightning fit [--config C.yaml] [--KEY VALUE ...]

Train; without options the tutorial's CNN on CIFAR-10. Each key of a config file is also an option, which overrides it.

  --data ImageFolder --data.root photos     photos in a folder for each class (--data.labels labels.csv: in a list)
  --data.image_size 64                      side of the square, in pixels, that they are resized to (32)
  --data CIFAR100                           or CIFAR10, ImageNet, Digits
  --data.resize_mode crop                   how they become square: or stretch (the default), pad
  --data.val_fraction 0.1                   share of each class held out where there is no val/; likewise test_fraction
  --data.batch_size 64
  --data.augment+ Mirror                    or ShiftedCrop, RandomResizedCrop, Cutout, TrivialAugment, RandAugment

  --model.net SpeedNet                      or CNN, Torchvision, Timm (--model.net.name resnet18), mynet.Net
  --model.optimizer AdamW                   any of torch.optim, or MuonSGD
  --model.optimizer.lr 0.001
  --model.scheduler OneCycleLR              with --model.scheduler.max_lr 0.01; or WarmupLinear, CosineAnnealingLR, ...
  --model.loss CrossEntropy                 with --model.loss.label_smoothing 0.1; or Focal, Distillation
  --model.init_from P                       start from the weights of another run

  --trainer.max_epochs 50
  --trainer.accelerator gpu                 or cpu; by default what there is (--trainer.devices: how many)
  --trainer.precision bf16-mixed            faster on GPUs from 2020 on, and some CPUs
  --trainer.callbacks+ EMA                  or SWA, Freeze, EarlyStopping, LearningRateFinder, ...
  --experiment NAME                         the run goes into runs/NAME/version_N
  --trainer.default_root_dir DIR            puts runs/ into DIR
  --seed_everything 0                       equal seeds give equal weights, on a CPU bit for bit
  --ckpt_path last                          resume the newest unfinished run of the experiment, or start one:
                                            give its --config again

"""
_CHECKPOINT = """\
  --ckpt_path P                             the checkpoint, such as runs/cnn/version_0/checkpoints/best.ckpt
  --data.root DIR                           where its photos are now, or other photos (--data.labels: in a list)
  --allow_custom_classes                    the checkpoint may name any classes: their code runs
"""
_TEST = f"""\
python -m cifar_lightning test --ckpt_path P [--KEY VALUE ...]

Judge a checkpoint on the test set: metrics with intervals, tables, and report.html.

{_CHECKPOINT}\
  --output DIR                              for the files; by default report, or report-NAME for other photos, in the
                                            run's folder
  --groups groups.csv                       results for groups of pictures: columns path, and one for each kind of group
  --corruptions                             results under noise, blur, fog and the like, of 10,000 photos at most
  --attacks "[1, 2, 4, 8]"                  results under FGSM and PGD attacks of these radii (L-inf, grey levels)
  --resamples 1000                          of the bootstrap, for the intervals

"""
_PREDICT = f"""\
python -m cifar_lightning predict --ckpt_path P [--KEY VALUE ...]

Write the predictions of a checkpoint to a CSV file: for the test photos; if another --data.root has no test/, for
all of its photos. The probabilities are the net's own. Those of an exported file are calibrated, with prediction sets
and unknown pictures: python -m cifar_onnx classify

{_CHECKPOINT}\
  --output FILE                             by default predictions.csv, or predictions-NAME.csv for other photos, in the
                                            run's folder

"""
_EXPORT = f"""\
python -m cifar_lightning export --ckpt_path P [--KEY VALUE ...]

Write a checkpoint as one ONNX file, calibrated, and proven on real pictures to give the same answers.

{_CHECKPOINT}\
  --output model.onnx                       or a folder for it; by default model.onnx in the run's folder
  --precision int8                          or fp16: smaller, and written only if it is as accurate
  --alpha 0.1                               share of pictures whose prediction set may miss the right label
  --sets aps                                how labels get into these sets: lac (by probability) or aps (cumulative)
  --license apache-2.0                      for the model card
  --triton DIR                              also write a model repository for NVIDIA Triton, 24.06 or newer

"""
_VALIDATE = f"""\
python -m cifar_lightning validate --ckpt_path P [--KEY VALUE ...]

Metrics of a checkpoint on its validation set.

{_CHECKPOINT}
"""
_VERIFY = f"""\
python -m cifar_lightning verify model.onnx --against P [--KEY VALUE ...]

Compare an exported file with its checkpoint, by torch, on this machine. The receiver's check, which needs neither torch
nor the checkpoint: python -m cifar_onnx verify model.onnx

{_CHECKPOINT.replace("--ckpt_path P", "--against P  ")}\
  --images 256                              how many pictures to compare on

"""
_REPRODUCE = """\
python -m cifar_lightning reproduce runs/<experiment>/version_N

Train a run again, from its own config, and say whether its weights come out the same, bit for bit: exit code 0 where
they do, 1 where they do not.
"""
_SWEEP = """\
Search hyper-parameters, on validation only; every trial is a run of `fit`.

  python -m cifar_lightning sweep --config configs/sweeps/X.yaml [OPTIONS]

The file, and every key of it but config as an option:

  config       the experiment: a config of fit, or a list of them, as seen from this file
  space        for each key that is searched {low: ..., high: ..., step: ..., log: true} or a list of values
  trials       how many in total, over all processes (20)
  monitor      the metric to optimise (the one that best.ckpt is chosen by)
  mode         min or max
  sampler      class_path and init_args of optuna.samplers (TPESampler; BruteForceSampler tries all combinations)
  pruner       class_path and init_args of optuna.pruners (MedianPruner; NopPruner trains every trial to its end)
  storage      a file, or the address of a database such as sqlite:///sweep.db (journal.log in the sweep's folder)
  experiment   name of its folder under runs/ (sweep- and the file's name)

Options of fit may be added, and override the experiment's config. The same command resumes a stopped sweep; started
again while it runs, on another device (--trainer.devices [1]) or machine with the same storage, it shares trials.
"""
_ALL = """\
  --help_all                                every option
  --data.help ImageFolder                   options of a class; likewise --model.net.help SpeedNet, ...
  --print_config                            the whole config, as YAML
"""
OPTIONS = {
    command: text + _ALL
    for command, text in {
        "fit": _FIT,
        "validate": _VALIDATE,
        "test": _TEST,
        "predict": _PREDICT,
        "export": _EXPORT,
        "verify": _VERIFY,
    }.items()
} | {"reproduce": _REPRODUCE, "sweep": _SWEEP}
