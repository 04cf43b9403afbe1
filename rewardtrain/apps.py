from django.apps import AppConfig


class RewardtrainConfig(AppConfig):
    name = "rewardtrain"
    verbose_name = "Learning"

    def ready(self) -> None:
        from rewardtrain import invariants  # noqa: F401 - registers its checks
