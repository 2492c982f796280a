import Stage
import StageKinds

StageProgram.main(stageKinds)
