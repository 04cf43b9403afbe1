"""A manager's addresses about rounds. Below projects/<slug>/rounds/."""

from django.urls import path

from rewardtrain.pages import evaluations, ledger, rounds, runs, teaching

app_name = "rewardtrain"

urlpatterns = [
    path("", rounds.rounds_page, name="rounds"),
    path("timeline/", rounds.timeline, name="timeline"),
    path("start/", rounds.start, name="start"),
    path("teach/", teaching.teach, name="teach"),
    path("roll-back/", rounds.roll_back, name="roll_back"),
    path("runs/<int:pk>/", runs.run_page, name="run"),
    path("runs/<int:pk>/ledger/", ledger.ledger_of_run, name="run_ledger"),
    path("evaluations/", evaluations.evaluations_page, name="evaluations"),
    path("evaluations/start/", evaluations.start, name="start_evaluation"),
    path("evaluations/reranking/", evaluations.reranking, name="reranking"),
    path("evaluations/<int:pk>/", evaluations.evaluation_page, name="evaluation"),
    path("evaluations/<int:pk>/ask/", evaluations.ask, name="ask_people"),
    path("evaluations/<int:pk>/close/", evaluations.close, name="close_blind_set"),
    path("<int:number>/", rounds.rounds_page, name="round"),
    path("<int:number>/ledger/", ledger.ledger, name="ledger"),
    path("<int:number>/decide/", rounds.decide, name="decide"),
    path("<int:number>/stop/", rounds.stop, name="stop"),
    path("<int:number>/resume/", rounds.resume, name="resume"),
]
