"""`LearnedOptimizer` in the training loops of others, which run where they are installed."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, TensorDataset

from metalearn_core import LearnedOptimizer, ParameterLayout, make_rule

pytestmark = pytest.mark.filterwarnings("ignore")  # what the trainers warn of is theirs


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def examples():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(16, 3, generator=generator), torch.randn(16, 1, generator=generator)


def rule_for(module, name="gradient-descent", **options):
    return make_rule(name, ParameterLayout.of(module), **options)


def test_the_trainer_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers", reason="needs transformers and accelerate")
    pytest.importorskip("accelerate", reason="needs transformers and accelerate")

    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network()

        def forward(self, inputs, labels):
            return {"loss": nn.functional.mse_loss(self.network(inputs), labels)}

    def trained(resume=None, **options):
        module = Module()
        rule = rule_for(module, inner_lr=0.1, optimizer="adam")
        if not options:
            options = {"optimizers": (LearnedOptimizer(module.parameters(), rule), None)}
        else:
            options = {"optimizer_cls_and_kwargs": (LearnedOptimizer, {"rule": rule, "lr": 1.0})}
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path), max_steps=4, per_device_train_batch_size=8, report_to=[], save_steps=2,
            logging_steps=1, use_cpu=True, disable_tqdm=True,
        )  # fmt: skip
        data = [{"inputs": a, "labels": b} for a, b in zip(*examples(), strict=True)]
        trainer = transformers.Trainer(module, arguments, train_dataset=data, **options)
        trainer.train(resume_from_checkpoint=resume)
        rates = [row["learning_rate"] for row in trainer.state.log_history if "learning_rate" in row]
        return torch.cat([p.detach().reshape(-1) for p in module.parameters()]), rates

    end, rates = trained()
    assert rates == [1.0, 0.75, 0.5, 0.25]  # its linear schedule
    again, _ = trained(f"{tmp_path}/checkpoint-2")
    assert torch.equal(again, end)
    by_class, _ = trained(by_class=True)  # in two groups, with and without weight decay, which is 0 in both
    assert torch.isfinite(by_class).all()


def test_lightning_with_a_scheduler_and_its_monitor(tmp_path):
    lightning = pytest.importorskip("lightning", reason="needs lightning")
    from lightning.pytorch.callbacks import LearningRateMonitor
    from lightning.pytorch.loggers import CSVLogger

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = network()

        def training_step(self, batch, index):
            return nn.functional.mse_loss(self.network(batch[0]), batch[1])

        def configure_optimizers(self):
            # it reads the loss: Lightning steps with a closure
            optimizer = LearnedOptimizer(self.parameters(), rule_for(self.network, "lstm"))
            return {"optimizer": optimizer, "lr_scheduler": StepLR(optimizer, 1, gamma=0.5)}

    def trained(epochs, path=None):
        monitor = LearningRateMonitor("epoch")
        trainer = lightning.Trainer(
            max_epochs=epochs, accelerator="cpu", logger=CSVLogger(tmp_path), callbacks=[monitor],
            default_root_dir=tmp_path, enable_progress_bar=False, enable_model_summary=False,
            gradient_clip_val=0.5, log_every_n_steps=1,
        )  # fmt: skip
        module = Module()
        trainer.fit(module, DataLoader(TensorDataset(*examples()), batch_size=8), ckpt_path=path)
        return trainer, torch.cat([p.detach().reshape(-1) for p in module.parameters()])

    half, _ = trained(2)
    half.save_checkpoint(tmp_path / "half.ckpt")
    assert half.optimizers[0].param_groups[0]["lr"] == 0.25
    assert list(half.callbacks[0].lrs) == ["lr-LearnedOptimizer"]
    _, end = trained(4)
    resumed, again = trained(4, tmp_path / "half.ckpt")
    assert torch.equal(again, end)
    assert resumed.optimizers[0].param_groups[0]["lr"] == 0.0625


def test_skorch_with_a_scheduler():
    skorch = pytest.importorskip("skorch", reason="needs skorch")
    from skorch.callbacks import LRScheduler

    module = network()
    inputs, targets = (x.numpy() for x in examples())
    regressor = skorch.NeuralNetRegressor(
        module, optimizer=LearnedOptimizer, optimizer__rule=rule_for(module, "lstm"), lr=1.0, max_epochs=3,
        train_split=None, verbose=0, callbacks=[LRScheduler(StepLR, step_size=1, gamma=0.5)],
    )  # fmt: skip
    regressor.fit(inputs, targets)
    assert regressor.optimizer_.param_groups[0]["lr"] == 0.125
    losses = regressor.history[:, "train_loss"]
    assert losses[-1] < losses[0]
